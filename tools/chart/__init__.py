"""What is generated for the chart from one description of its values: the JSON schema and the README's tables."""
