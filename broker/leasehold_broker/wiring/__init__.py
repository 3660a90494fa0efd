"""The only rooms that know both ports and adapters: each process is put together here, and holds no rule of its own."""
