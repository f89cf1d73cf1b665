"""What a plasma FIB-SEM is: its verbs, its settings, its rules of safety, its backends, its server."""
