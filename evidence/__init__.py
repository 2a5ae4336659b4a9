"""Long trials whose outcome is evidence: every step failing in turn, power lost at any instant, hours under load."""
