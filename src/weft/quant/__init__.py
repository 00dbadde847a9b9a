"""weft.quant"""
