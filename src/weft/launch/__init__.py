"""weft.launch"""
