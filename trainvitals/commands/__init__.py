"""The command line, one question a file. Nothing here imports torch before a command needs it."""
