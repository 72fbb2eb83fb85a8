/** `1 flow`, `2 flows`, for people. `nouns`: where it is not the noun with an s. */
export function counted(count: number, noun: string, nouns = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : nouns}`
}
