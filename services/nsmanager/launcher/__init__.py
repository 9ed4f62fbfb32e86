"""The privileged process: makes namespaces, keeps an agent in each, runs engines under uids of their own.

One thread and one poll loop; it imports neither asyncio nor grpc nor pyroute2 and knows nothing of route tables but their
ids. It may die at any moment: what it made is recorded in mounts and files that its next life adopts.
"""
