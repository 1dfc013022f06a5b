"""What people see of a run: tables, pictures, comparisons, targets."""
