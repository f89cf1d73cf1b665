"""The steps of a recipe, each a function of a handle: what is done, in which order, through acts.

The models of their settings are in `workflows.recipe_steps`.
"""
