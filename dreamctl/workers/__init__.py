"""What runs on the other side: the programs that providers start, and the errands that they carry out.

Nothing of dreamctl imports this package. A provider's SDK is needed by that provider's program alone.
"""
