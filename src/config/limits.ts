/** Far above any file that a person writes; below it the work of reading one is bounded. */
export const MAX_CONFIG_BYTES = 1_048_576
