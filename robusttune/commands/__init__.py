"""The commands of the command line, one module each. A command's module is imported when the command runs."""
