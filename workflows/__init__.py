"""From a recipe to a plan to a run: journal, steps, command line."""
