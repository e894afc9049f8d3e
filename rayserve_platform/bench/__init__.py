"""Load generation and side-by-side measurements of model servers.

Rule of this package: it knows servers only by their sockets and command lines. It imports nothing
else of `rayserve_platform`; `ray` is imported only by the two peer scripts, inside functions.
"""
