"""What rows say: tables, ranks, sweeps, levels and budgets, as frames."""
