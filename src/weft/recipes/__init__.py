"""weft.recipes"""
