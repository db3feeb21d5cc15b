"""Breeds in other programs: the functions and classes that `breeds.__all__` lists."""
