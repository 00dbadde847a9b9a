"""weft.web"""
