import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Flights, WrongDatagram } from './udp-traffic.ts'

test('a gap is a loss, and makes room for others', () => {
  const flights = new Flights(2)
  flights.depart(0, 4)
  flights.depart(1, 2)
  flights.arrive(0, 0)
  flights.arrive(0, 3)
  assert.equal(flights.inFlightOf(0), 0)
  assert.equal(flights.inFlight, 2)
  assert.equal(flights.sent - flights.arrived, 4)
  assert.equal(flights.nextOf(0), 4)
})

test('what was given up may still come', () => {
  const flights = new Flights(1)
  flights.depart(0, 3)
  flights.giveUp(0)
  assert.equal(flights.inFlight, 0)
  flights.depart(0, 1)
  flights.arrive(0, 1)
  assert.equal(flights.inFlight, 1)
  flights.arrive(0, 3)
  assert.equal(flights.inFlight, 0)
  assert.equal(flights.arrived, 2)
})

test('a datagram that was overtaken, came twice, or was never sent, is wrong', () => {
  const flights = new Flights(1)
  flights.depart(0, 3)
  flights.arrive(0, 1)
  assert.throws(() => flights.arrive(0, 0), WrongDatagram)
  assert.throws(() => flights.arrive(0, 1), WrongDatagram)
  assert.throws(() => flights.arrive(0, 3), WrongDatagram)
  assert.throws(() => flights.arrive(1, 0), WrongDatagram)
})
