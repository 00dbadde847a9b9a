"""weft.text"""
