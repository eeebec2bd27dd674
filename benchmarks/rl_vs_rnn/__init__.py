"""Reinforcement learning or a recurrent network?"""
