"""How measured angles agree with theory: predictions beside samples, scores, stages."""
