"""What the system gives and refuses: folders of ours written durably and never through a link (`local`), its errors as ours
(`durable`), and waiting for processes and threads (`patience`).
"""
