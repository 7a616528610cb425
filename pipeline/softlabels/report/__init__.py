"""What a person looks at, made from plain numbers: tables and comparisons. It imports neither teachers nor students."""
