"""The airlock: everything that depends on how Protenix ("upstream") is built. Importing it imports nothing heavy."""
