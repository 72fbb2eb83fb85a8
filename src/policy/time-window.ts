import type { TimeWindow } from '../config/policy-types.ts'

const MINUTES_PER_DAY = 1_440

/** Whether a moment, in this host's local time, is within one of the windows. */
export function isWithin({ days, from, to }: TimeWindow, at: Date): boolean {
  const minute = at.getHours() * 60 + at.getMinutes()
  const today = at.getDay()
  const yesterday = (today + 6) % 7
  const begins = (day: number) => days.length === 0 || days.includes(day)
  const end = to > from ? to : to + MINUTES_PER_DAY
  return (
    (begins(today) && minute >= from && minute < end) ||
    (begins(yesterday) && minute + MINUTES_PER_DAY >= from && minute + MINUTES_PER_DAY < end)
  )
}
