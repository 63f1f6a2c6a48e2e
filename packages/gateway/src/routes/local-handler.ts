import type { RouteHandler } from '../application.js';
import type { LocalRoute } from './route.js';

/** Answers with what the route itself says. */
export function localHandler(route: LocalRoute): RouteHandler {
  return async ({ request, answerHeaders }, reply, form) => {
    const answer = await route.answer(request, form instanceof URLSearchParams ? form : new URLSearchParams());
    const { status, headers, body = '' } = answer;
    return reply
      .code(status)
      .headers({ ...answerHeaders, ...headers } as Record<string, string>)
      .header('x-request-id', request.id)
      .send(body);
  };
}
