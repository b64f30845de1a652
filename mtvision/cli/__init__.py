"""The code behind tools/ and the console script."""
