-- Load for wrk: nine reads to one write over the keys that kvserver --fill 8192 made.
local value = string.rep("v", 200)
local n = 0

request = function()
	n = n + 1
	local path = "/kv/" .. math.random(0, 8191)
	if n % 10 == 0 then
		return wrk.format("PUT", path, nil, value)
	end
	return wrk.format("GET", path)
end
