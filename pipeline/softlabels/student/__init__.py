"""Training a student from stored labels: what it is trained with (`config`), on which rows (`split`), to which end
(`losses`), how (`trainer`, `checkpoint`, `seeding`) and how well it does (`metrics`). No teacher code is imported here.
"""
