"""The commands of ``fedpilot``, one file each; a command is imported when it is asked for."""
