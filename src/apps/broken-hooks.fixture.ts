/** What a hook does wrong, and which counter tells it. */
export type BrokenHook = readonly [what: string, broken: () => unknown, counter: 'hookFailures' | 'hookTimeouts']

/** Whatever it is to decide. */
export const BROKEN_HOOKS: readonly BrokenHook[] = [
  [
    'throws',
    () => {
      throw new Error('broken')
    },
    'hookFailures',
  ],
  ['rejects', () => Promise.reject(new Error('broken')), 'hookFailures'],
  ['never settles', () => new Promise(() => {}), 'hookTimeouts'],
]
