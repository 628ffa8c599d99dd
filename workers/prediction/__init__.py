"""How long a recipe's result will take, guessed from what was timed of its model on the target."""
