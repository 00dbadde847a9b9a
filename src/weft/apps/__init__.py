"""weft.apps"""
