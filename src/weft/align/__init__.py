"""weft.align"""
