"""The version of the package: a profile of an older one is not believed."""

__version__ = "0.1.0"
