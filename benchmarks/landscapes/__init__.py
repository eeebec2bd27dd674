"""Two-dimensional landscapes: does an agent find the minimum, and improve with practice?"""
