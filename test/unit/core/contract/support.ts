import { defineContract, unary } from '@sallyport/core';
import type { z } from 'zod';

/** A contract with one unary method; its codecs are what most tests are about. */
export function echo<Request extends z.ZodType, Response extends z.ZodType>(request: Request, response: Response) {
  return defineContract('test.Echo', { echo: unary(request, response) }).echo;
}

export interface Refusal extends Error {
  readonly code: number;
  readonly details: readonly { readonly typeUrl: string; readonly value: Uint8Array }[];
}

/** What `action` throws. */
export function refusal(action: () => unknown): Refusal {
  try {
    action();
  } catch (error) {
    return error as Refusal;
  }
  throw new Error('nothing was refused');
}

export const INVALID_ARGUMENT = 3;
export const RESOURCE_EXHAUSTED = 8;
export const INTERNAL = 13;

export function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
