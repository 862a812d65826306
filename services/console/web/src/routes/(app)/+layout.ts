import { redirect } from '@sveltejs/kit';
import { call } from '#lib/api/client.ts';
import { ApiError } from '#lib/api/errors.ts';
import type { Login, System } from '#lib/api/types.ts';
import { session } from '#lib/session.svelte.ts';

/** Every page but the sign-in needs one. It is asked for once; a later 401 lays the sign-in over the page. */
export async function load({ url }: { url: URL }): Promise<void> {
	if (session.login) return;
	try {
		session.started(await call<Login>('GET', '/console/login', { quiet: true }));
	} catch (error) {
		if (!(error instanceof ApiError) || error.status !== 401) throw error;
		redirect(307, `/sign-in?next=${encodeURIComponent(url.pathname + url.search)}`);
	}
	call<System>('GET', '/console/system').then(
		(system) => (session.system = system),
		() => undefined
	);
}
