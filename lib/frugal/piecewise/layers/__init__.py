"""Layers in which every edge is a function of its own, and what is done to them: normalise, refine, exchange weights.

They map numbers to numbers; what knows of characters stands in the room around, which shows the public names.
"""
