"""What other tools write of labels: a module a format, which reads its files into rows of tokens with what is said of them
(`rows`), and writes such rows where the format is one that we write. Rows in, rows out: no store, no command.
"""
