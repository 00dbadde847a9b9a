"""weft.engine"""
