"""Arrays as objects in memory while a function is traced: indexing, views, copies, writes, memory order."""
