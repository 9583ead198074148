"""Real runs made to be ill, and healthy ones, by ``runs.yaml``; their records, kept for the tests.

``python -m tests.doctor [NAME ...]`` makes them anew: minutes of one core.
"""
