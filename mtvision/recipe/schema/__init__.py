"""What editors and readers get from the declarations of configs: the JSON schema and the reference page."""
