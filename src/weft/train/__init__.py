"""weft.train"""
