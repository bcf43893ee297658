"""Everything that depends on the internals of Protenix ("upstream"). Importing this package imports nothing heavy."""
