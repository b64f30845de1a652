"""One run: training module, loop, runner, hooks, optimizer, record. mmengine's Runner stays in here."""
