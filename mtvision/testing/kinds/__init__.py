"""One battery in each file: the properties of one kind of class."""
