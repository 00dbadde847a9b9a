"""weft.plan"""
