"""The teacher: its models and their logits (`ensemble`), the loop that fills a store shard by shard (`label`), and
the comparison of a store with the live teacher (`recheck`). Students never import this room.
"""
