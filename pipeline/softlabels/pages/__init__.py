"""Pages that a person opens in a browser: one HTML file each, made from stores, runs and plans. They load nothing and know no
models.
"""
